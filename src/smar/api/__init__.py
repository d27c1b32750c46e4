"""The public API: what each command does, for a Python program. `smar` gives all of it, loaded when it is used.

Reading order: `stages` (prepare, train, embed, evaluate), `encoder` (a trained model: texts and pictures in, vectors
out; `pictures` takes them as a program has them), `index`.
"""
