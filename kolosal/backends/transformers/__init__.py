"""The backend `transformers`: models of the Hugging Face format, computed by PyTorch. Needs the extra of that name."""
