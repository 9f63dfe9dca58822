"""Files that are generated from the types in operator/berth/api/ and the decisions in operator/berth/planning/."""
