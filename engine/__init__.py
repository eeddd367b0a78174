"""Ketter's engine: moves a tree from one host to another and proves that it arrived."""
