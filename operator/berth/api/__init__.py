"""The custom resources as types. CRDs, JSON schema and reference pages are generated from them."""
