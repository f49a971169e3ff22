"""HTTP: requests to parameters, results to responses. One route table for every host."""
