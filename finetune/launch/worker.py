"""Script that MindSpore's launcher starts for every process of a run, and for its scheduler."""

import sys

if __name__ == "__main__":
    del sys.path[0]  # the folder of this script: its modules must not shadow others
    from finetune.launch import worker_process

    worker_process.main()
