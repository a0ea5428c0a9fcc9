"""Settings that must stand before the first import of a Hugging Face package."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
