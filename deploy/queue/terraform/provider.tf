# Where this folder is the root. As a module (the operator aws-eks) it gets its parent's provider: one of
# its own would be gone with the module, and what it had made could not be removed any more.
provider "aws" {
  region = var.region
  default_tags {
    tags = { deployment = var.name, "managed-by" = "terraform" }
  }
}
