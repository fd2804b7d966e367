"""Distributed training: the processes of a run and how they communicate."""
