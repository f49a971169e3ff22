# Where this folder is the root. As a module it gets its parent's provider, on the stand-in, too.

provider "aws" {
  s3_use_path_style           = true
  skip_requesting_account_id  = false
  skip_metadata_api_check     = true
  skip_credentials_validation = true
  max_retries                 = 5 # ministack's server may close a connection under an answer
}
