"""HTTP parts that every API here uses."""
