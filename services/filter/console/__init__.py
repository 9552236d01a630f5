"""The console: the pages of the labeling API at `/`, rendered on the server from the documents the API answers with.

page.py       what every page has: its template, words, caller and headers; errors as pages
words.py      English and Traditional Chinese
files.py      /static: scripts, styles and the vendored libraries (static/vendor/README.md)
sign_in.py    a session with a key
batches.py …  one file for each room of the console, templates/ has its pages
"""
