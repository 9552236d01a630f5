"""`python -m services.teacher`: serve the model in K2D_TEACHER."""

from services.inference.host import TEACHER
from services.inference.serving import serve

if __name__ == "__main__":
    serve(TEACHER)
