"""How ``recsys.snapshots`` does it: the manifest, files, a folder of snapshots, and one being written."""
