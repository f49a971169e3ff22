"""Text encoders turn prompts into embeddings."""
