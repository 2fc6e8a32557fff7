"""The codec of feature maps: how the two maps of a photo become a fixed number of bytes, and back.

`quality` names the qualities and says how many bytes each takes per photo. `codec.Codec` is fitted
on a sample of photos, encodes maps and decodes them; `map_coder` holds its arithmetic for one map.
`tokens.TokenMap` computes what scores need directly from the encoded tokens, by the fastest of the
`kernels`; `machine` describes the CPU that decides which one that is. `visual_words` assigns the
cells of a photo to visual words, which recall looks up.
"""
