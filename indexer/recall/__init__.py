"""Recall: which photos of a collection are worth re-ranking.

Three indexes answer that, each a base on disk and what came after it: `vectors.RecallIndex` for
pooled vectors and for descriptors, `inverted_file.WordRecall` for visual words.
`descriptor_vectors` stores the columns of descriptors. `base_rule` decides when a base is written
anew; `faiss_base` builds, writes and reads a base of vectors, and `faiss_search` searches it;
`word_base` and `word_lists` do so for words, which a
`word_query.WordQuery` asks for.
"""
