// Lists a store's entries and fetches each, beside whoever writes to it.
//
//	CGO_CFLAGS=$(pkg-config --cflags finchkv) CGO_LDFLAGS=$(pkg-config --libs finchkv) go run read.go STORE
//
// A prefix that the system does not know: PKG_CONFIG_PATH=PREFIX/lib/pkgconfig, and LD_LIBRARY_PATH=PREFIX/lib to run.
package main

/*
#include <stdlib.h>
#include <finchkv.h>
*/
import "C"

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// check turns a code and its sentence into an error and frees the sentence.
func check(code C.fkv_code, message *C.fkv_error) error {
	if code == C.FKV_OK {
		return nil
	}
	if message == nil {
		return errors.New(C.GoString(C.fkv_code_name(code)))
	}
	defer C.fkv_error_free(message)
	return errors.New(C.GoString(C.fkv_error_message(message)))
}

func openForReading(directory string) (*C.fkv_store, error) {
	url := C.CString(directory)
	defer C.free(unsafe.Pointer(url))
	options := C.fkv_store_options{
		struct_size: C.sizeof_fkv_store_options,
		url:         C.fkv_str{data: url, size: C.size_t(len(directory))},
		mode:        C.FKV_READ,
	}
	var store *C.fkv_store
	var message *C.fkv_error
	return store, check(C.fkv_store_open(&options, &store, &message), message)
}

func show(store *C.fkv_store, info *C.fkv_entry_info) error {
	var message *C.fkv_error
	var fetch *C.fkv_fetch
	if err := check(C.fkv_store_fetch(store, &info.id, &fetch, &message), message); err != nil {
		return err
	}
	defer C.fkv_fetch_free(fetch)
	var set *C.fkv_kvset
	if err := check(C.fkv_fetch_finish(fetch, &set, &message), message); err != nil {
		return err
	}
	defer C.fkv_kvset_free(set)
	var data *C.uint32_t
	var count C.size_t
	if err := check(C.fkv_kvset_origins(set, 0, &data, &count, &message), message); err != nil {
		return err
	}
	origins := unsafe.Slice((*uint32)(data), int(count)) // valid as long as the set
	fmt.Printf("%s keeps %d of %d tokens; layer 0 from %d on\n", hex.EncodeToString(C.GoBytes(unsafe.Pointer(&info.id), 32)),
		info.max_kept, info.doc_tokens, origins[0])
	return nil
}

func run(directory string) error {
	store, err := openForReading(directory)
	if err != nil {
		return err
	}
	defer C.fkv_store_close(store)
	var message *C.fkv_error
	var listing *C.fkv_listing
	if err := check(C.fkv_store_list(store, nil, 1000, &listing, &message), message); err != nil {
		return err
	}
	defer C.fkv_listing_free(listing)
	for i := C.size_t(0); i < C.fkv_listing_size(listing); i++ {
		info := C.fkv_entry_info{struct_size: C.sizeof_fkv_entry_info}
		if err := check(C.fkv_listing_get_info(listing, i, &info, &message), message); err != nil {
			return err
		}
		if err := show(store, &info); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: read STORE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
