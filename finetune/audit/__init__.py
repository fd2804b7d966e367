"""Audit: finds what is wrong with the images and labels of a dataset, from the features of a frozen network."""
