"""The script that MindSpore's launcher starts for every process of a run, and for the one where they meet."""

import sys

if __name__ == "__main__":
    del sys.path[0]  # the folder of this script, whose modules must not hide others
    from finetune.launch import member

    member.main()
