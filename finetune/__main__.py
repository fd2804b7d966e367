"""``python -m finetune``: the command line."""

from finetune.cli import program

if __name__ == "__main__":
    program()
