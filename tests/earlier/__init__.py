"""Files that earlier versions wrote, and what today's program does with them."""
