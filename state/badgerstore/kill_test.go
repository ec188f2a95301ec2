package badgerstore

const childDir = "LEAT_BADGERSTORE_CHILD"

func child(string) {}
