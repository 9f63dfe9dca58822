"""Files that are generated from the types in operator/berth/api/."""
