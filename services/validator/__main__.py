"""`python -m services.validator`: serve the model in K2D_VALIDATOR."""

from services.inference.host import VALIDATOR
from services.inference.serving import serve

if __name__ == "__main__":
    serve(VALIDATOR)
