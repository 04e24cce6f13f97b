//! Lists a store's entries and fetches each, beside whoever writes to it.
//!
//!     rustc read.rs -L native=PREFIX/lib && LD_LIBRARY_PATH=PREFIX/lib ./read STORE
//!
//! The structs are those of finchkv.h as far as they are used here: `struct_size` says how much of one there is.

use std::ffi::{c_char, c_void, CStr};
use std::mem::size_of;
use std::ptr::{null, null_mut};

#[repr(C)]
#[derive(Clone, Copy)]
struct Str {
    data: *const c_char,
    size: usize,
}

impl Str {
    const NONE: Str = Str { data: null(), size: 0 };
}

#[repr(C)]
struct StoreOptions {
    struct_size: usize,
    url: Str,
    mode: u32, // 0: to read
    create: u32,
    wait_ms: u32,
    publisher: u32,
}

#[repr(C)]
struct EntryInfo {
    struct_size: usize,
    id: [u8; 32],
    label: Str,
    reader: Str,
    policy: Str,
    doc_tokens: u64,
    prompt_tokens: u64,
    keep: u64,
    chunk: u64,
    n_layers: u32,
    n_kv_heads: u32,
    head_dim: u32,
    origin_rows: u32,
    max_kept: u32,
    storage_dtype: u32,
}

// Opaque objects are *mut c_void here; each is freed by its own function.
#[link(name = "finchkv")]
extern "C" {
    fn fkv_error_message(error: *const c_void) -> *const c_char;
    fn fkv_error_free(error: *mut c_void);
    fn fkv_store_open(options: *const StoreOptions, store: *mut *mut c_void, error: *mut *mut c_void) -> i32;
    fn fkv_store_close(store: *mut c_void);
    fn fkv_store_list(
        store: *mut c_void, after: *const u8, limit: u32, listing: *mut *mut c_void, error: *mut *mut c_void,
    ) -> i32;
    fn fkv_listing_size(listing: *const c_void) -> usize;
    fn fkv_listing_get_info(
        listing: *const c_void, index: usize, info: *mut EntryInfo, error: *mut *mut c_void,
    ) -> i32;
    fn fkv_listing_free(listing: *mut c_void);
    fn fkv_store_fetch(store: *mut c_void, id: *const u8, fetch: *mut *mut c_void, error: *mut *mut c_void) -> i32;
    fn fkv_fetch_finish(fetch: *mut c_void, set: *mut *mut c_void, error: *mut *mut c_void) -> i32;
    fn fkv_fetch_free(fetch: *mut c_void);
    fn fkv_kvset_origins(
        set: *const c_void, layer: u32, origins: *mut *const u32, count: *mut usize, error: *mut *mut c_void,
    ) -> i32;
    fn fkv_kvset_free(set: *mut c_void);
}

/// Calls a function that takes an error last, and makes a Result of it.
fn call(function: impl FnOnce(*mut *mut c_void) -> i32) -> Result<(), String> {
    let mut error = null_mut();
    let code = function(&mut error);
    if code == 0 {
        return Ok(());
    }
    if error.is_null() {
        return Err(format!("error {code}"));
    }
    // The message lives as long as the error.
    let message = unsafe { CStr::from_ptr(fkv_error_message(error)) }.to_string_lossy().into_owned();
    unsafe { fkv_error_free(error) };
    Err(message)
}

/// An object of the library, freed when it goes out of scope.
struct Owned(*mut c_void, unsafe extern "C" fn(*mut c_void));

impl Owned {
    fn new(
        free: unsafe extern "C" fn(*mut c_void), make: impl FnOnce(*mut *mut c_void, *mut *mut c_void) -> i32,
    ) -> Result<Owned, String> {
        let mut object = null_mut();
        call(|error| make(&mut object, error))?;
        Ok(Owned(object, free))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        unsafe { (self.1)(self.0) }
    }
}

fn show(store: &Owned, info: &EntryInfo) -> Result<(), String> {
    let fetch = Owned::new(fkv_fetch_free, |out, e| unsafe { fkv_store_fetch(store.0, info.id.as_ptr(), out, e) })?;
    let set = Owned::new(fkv_kvset_free, |out, e| unsafe { fkv_fetch_finish(fetch.0, out, e) })?;
    let (mut data, mut count) = (null(), 0);
    call(|e| unsafe { fkv_kvset_origins(set.0, 0, &mut data, &mut count, e) })?;
    let origins = unsafe { std::slice::from_raw_parts(data, count) }; // valid as long as the set
    let id: String = info.id.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{id} keeps {} of {} tokens; layer 0 from {} on", info.max_kept, info.doc_tokens, origins[0]);
    Ok(())
}

fn run(directory: &str) -> Result<(), String> {
    let options = StoreOptions {
        struct_size: size_of::<StoreOptions>(),
        url: Str { data: directory.as_ptr().cast(), size: directory.len() },
        mode: 0,
        create: 0,
        wait_ms: 0,
        publisher: 0,
    };
    let store = Owned::new(fkv_store_close, |out, e| unsafe { fkv_store_open(&options, out, e) })?;
    let listing = Owned::new(fkv_listing_free, |out, e| unsafe { fkv_store_list(store.0, null(), 1000, out, e) })?;
    for index in 0..unsafe { fkv_listing_size(listing.0) } {
        let mut info = EntryInfo {
            struct_size: size_of::<EntryInfo>(),
            id: [0; 32],
            label: Str::NONE,
            reader: Str::NONE,
            policy: Str::NONE,
            doc_tokens: 0,
            prompt_tokens: 0,
            keep: 0,
            chunk: 0,
            n_layers: 0,
            n_kv_heads: 0,
            head_dim: 0,
            origin_rows: 0,
            max_kept: 0,
            storage_dtype: 0,
        };
        call(|e| unsafe { fkv_listing_get_info(listing.0, index, &mut info, e) })?;
        show(&store, &info)?;
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() != 2 {
        eprintln!("usage: read STORE");
        std::process::exit(2);
    }
    if let Err(message) = run(&arguments[1]) {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
