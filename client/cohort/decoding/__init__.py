"""Pixels and voxels, decoded in processes of their own."""
