//! dlopen-rs as a side of the benchmarks, by its functions for Rust: those for C have the names of
//! libc's, and would be libc's here.
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};
use dlopen_rs::{ElfLibrary, OpenFlags};

unsafe fn text<'a>(name: *const c_char) -> &'a str {
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("")
}

fn handle(library: dlopen_rs::Result<ElfLibrary>) -> *mut c_void {
    match library {
        Ok(library) => Box::into_raw(Box::new(library)).cast(),
        Err(error) => {
            eprintln!("{error}");
            null_mut()
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_open(path: *const c_char, mode: c_int) -> *mut c_void {
    let flags = OpenFlags::from_bits_truncate(mode as _);
    handle(ElfLibrary::dlopen(unsafe { text(path) }, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_open_bytes(
    name: *const c_char,
    bytes: *const u8,
    size: usize,
) -> *mut c_void {
    let bytes = unsafe { core::slice::from_raw_parts(bytes, size) };
    handle(ElfLibrary::dlopen_from_binary(bytes, unsafe { text(name) }, OpenFlags::RTLD_NOW))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_close(handle: *mut c_void) -> c_int {
    drop(unsafe { Box::from_raw(handle.cast::<ElfLibrary>()) });
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_symbol(
    handle: *mut c_void,
    name: *const c_char,
) -> *mut c_void {
    let name = unsafe { text(name) };
    let found = if handle.is_null() {
        dlopen_rs::dlsym_default::<()>(name)
    } else {
        unsafe { (*handle.cast::<ElfLibrary>()).get::<()>(name) }
    };
    found.map_or(null_mut(), |symbol| symbol.into_raw() as *mut c_void)
}

/// Dl_info of <dlfcn.h>.
#[repr(C)]
pub struct Info {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    symbol: *mut c_void,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_address(address: usize, info: *mut Info) -> c_int {
    let Some(found) = ElfLibrary::dladdr(address) else { return 0 };
    let info = unsafe { &mut *info };
    info.file = found.dylib().cname();
    info.base = found.dylib().base() as *mut c_void;
    info.name = found.symbol_name().map_or(null(), |name| name.as_ptr().cast());
    info.symbol = found.symbol_addr().unwrap_or(0) as *mut c_void;
    1
}

/// struct dl_phdr_info of <link.h>.
#[repr(C)]
pub struct Header {
    base: usize,
    name: *const c_char,
    headers: *const c_void,
    count: u16,
    others: [u64; 4],
}

type Visit = unsafe extern "C" fn(*mut Header, usize, *mut c_void) -> c_int;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dlopen_rs_iterate(visit: Visit, data: *mut c_void) -> c_int {
    let visited = ElfLibrary::dl_iterate_phdr(|info| {
        let mut header = Header {
            base: info.base(),
            name: info.cname(),
            headers: info.phdrs().as_ptr().cast(),
            count: info.phdrs().len() as u16,
            others: [0; 4],
        };
        unsafe { visit(&mut header, size_of::<Header>(), data) };
        Ok(())
    });
    c_int::from(visited.is_err())
}
