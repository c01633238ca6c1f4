"""Models that look at a picture and tell what it shows: captioners write sentences, taggers list tags, segmenters draw
masks. None of them is needed for training; each is loaded from a folder or from the hub's local cache when it is asked
for.

``catalogue`` lists the ones that the studio offers by name, ``local`` finds them on this machine, ``offers`` says what
of a model on the hub would be downloaded.
"""
