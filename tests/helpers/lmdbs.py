"""LMDBs in the form of the field's."""

import lmdb


def write_lmdb(folder, labels, images=None, samples=None, more=()):
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", samples or str(len(labels)).encode())
        for number, label in enumerate(labels, 1):
            if label is not None:
                transaction.put(b"label-%09d" % number, label if isinstance(label, bytes) else label.encode())
            if images:
                transaction.put(b"image-%09d" % number, images[number - 1])
        for key, value in dict(more).items():
            transaction.put(key, value)
