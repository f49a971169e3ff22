"""The web page beside the service (`static`), and a Gradio page in front of one elsewhere."""
