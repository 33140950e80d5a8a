//! Relink (the crate elf_loader) as a side of the benchmarks.  It is a library to build a loader
//! from; this is the one of its own benchmarks: one context, in which what there is one of in a
//! process already comes from libc, and whose lock is held for a whole open or close.
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use elf_loader::{
    AddressSpaceId, Domain, LinkContext, Linker, Loader, Result,
    arch::NativeArch,
    host,
    input::{ElfBinary, ElfFile, Path, PathBuf},
    linker::{GraphModule, LdCache, LoadResult, SearchConfig, SearchPathResolver},
    tls::DefaultTlsResolver,
};
use std::ffi::CString;
use std::sync::{LazyLock, Mutex};

const OF_THE_PROCESS: &[&str] = &[
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "ld-linux-x86-64.so.2",
];
const RTLD_NOW: c_int = 2;
const RTLD_NOLOAD: c_int = 4;
const RTLD_GLOBAL: c_int = 0x100;

unsafe extern "C" {
    fn dlopen(name: *const c_char, mode: c_int) -> *mut c_void;
}

type Context = LinkContext<(), NativeArch, DefaultTlsResolver>;

/// What is opened: a file, or bytes with a name.
enum Root<'bytes> {
    File(PathBuf),
    Bytes(&'bytes str, &'bytes [u8]),
}

type Load = dyn Fn(&mut Context, Root<'_>) -> Result<LoadResult> + Send;

struct State {
    context: Context,
    load: Box<Load>,
}

fn linker(cache: LdCache) -> Box<Load> {
    let resolver = SearchPathResolver::with_config(SearchConfig::new().cache(cache));
    let linker = Linker::new().with_loader(Loader::new()).with_resolver(resolver);
    Box::new(move |context, root| match root {
        Root::File(path) => linker.run().load(context, path),
        Root::Bytes(name, bytes) => {
            let domain = context.domain().clone();
            let image = Loader::new().run(domain).load_dylib(ElfBinary::new(name, bytes))?;
            linker.run().load_mapped(context, name.into(), image.into())
        }
    })
}

fn prepare() -> Result<State> {
    let cache = LdCache::load_system()?;
    let domain = Domain::native(AddressSpaceId::PROCESS).with_tls(DefaultTlsResolver::new())?;
    let mut found = Vec::new();
    for name in OF_THE_PROCESS {
        let text = CString::new(*name).unwrap();
        if unsafe { dlopen(text.as_ptr(), RTLD_NOW | RTLD_NOLOAD) }.is_null() {
            continue;
        }
        let right = |path: &&Path| {
            ElfFile::from_path(path).is_ok_and(|file| Loader::new().read_ehdr(&file).is_ok())
        };
        if let Some(path) = cache.candidates(name).find(right) {
            found.push((*name, unsafe { host::open(&domain, path, *name) }?));
        }
    }
    let mut context = Context::new(domain);
    let modules = found.into_iter().map(|(name, module)| GraphModule::new(name, module));
    context.insert_batch(modules)?;
    Ok(State { context, load: linker(cache) })
}

static STATE: LazyLock<Mutex<State>> =
    LazyLock::new(|| Mutex::new(prepare().expect("the libraries of the process")));

fn open(root: Root<'_>, mode: c_int) -> *mut c_void {
    let State { context, load } = &mut *STATE.lock().unwrap();
    let loaded = load(context, root).and_then(|loaded| {
        if mode & RTLD_GLOBAL != 0 {
            context.promote_global(loaded.root())?;
        }
        Ok(loaded)
    });
    match loaded {
        Ok(loaded) => Box::into_raw(Box::new(loaded)).cast(),
        Err(error) => {
            eprintln!("{error}");
            null_mut()
        }
    }
}

unsafe fn text<'a>(name: *const c_char) -> &'a str {
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_relink_open(path: *const c_char, mode: c_int) -> *mut c_void {
    open(Root::File(PathBuf::from(unsafe { text(path) })), mode)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_relink_open_bytes(
    name: *const c_char,
    bytes: *const u8,
    size: usize,
) -> *mut c_void {
    let bytes = unsafe { core::slice::from_raw_parts(bytes, size) };
    open(Root::Bytes(unsafe { text(name) }, bytes), 0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_relink_close(handle: *mut c_void) -> c_int {
    let loaded = unsafe { Box::from_raw(handle.cast::<LoadResult>()) };
    let group = loaded.release(&mut STATE.lock().unwrap().context);
    c_int::from(group.is_err())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_relink_symbol(
    handle: *mut c_void,
    name: *const c_char,
) -> *mut c_void {
    if handle.is_null() {
        return null_mut();
    }
    let loaded = unsafe { &*handle.cast::<LoadResult>() };
    let name = unsafe { text(name) };
    let state = STATE.lock().unwrap();
    let Ok(module) = state.context.module(loaded.root()) else { return null_mut() };
    match unsafe { module.get::<*mut c_void>(name) } {
        Ok(Some(symbol)) => symbol.into_raw() as *mut c_void,
        _ => null_mut(),
    }
}
