"""`k2d study`: on speech with references, which filter keeps the better labels?"""
