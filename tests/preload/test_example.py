"""A program that knows nothing of us loads its library through us, as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run

LIBRARY = {
    "c": """
#include <stdio.h>
int add(int a, int b) { return a + b; }
void print(const char *text) { puts(text); fflush(stdout); }
""",
    "c++": """
#include <iostream>
#include <stdexcept>
#include <string>
extern "C" int add(int a, int b) {
  try { throw std::runtime_error(std::to_string(a + b)); }
  catch (const std::exception &error) { return std::stoi(error.what()); }
}
extern "C" void print(const char *text) { std::cout << std::string(text) << std::endl; }
""",
    "rust": """
use std::ffi::{c_char, c_int, CStr};
#[no_mangle]
pub extern "C" fn add(a: c_int, b: c_int) -> c_int {
    std::panic::catch_unwind(|| a + b).unwrap()
}
#[no_mangle]
pub unsafe extern "C" fn print(text: *const c_char) {
    println!("{}", CStr::from_ptr(text).to_str().unwrap());
}
""",
}
C_PROGRAM = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
static int visit(struct dl_phdr_info *info, size_t, void *) {
  if (strstr(info->dlpi_name, "libexample")) printf("iterate: %s\\n", info->dlpi_name);
  return 0;
}
int main(int, char **argv) {
  void *library = dlopen(argv[1], RTLD_LOCAL | RTLD_LAZY);
  if (!library) return printf("%s\\n", dlerror()), 1;
  int (*add)(int, int) = (int (*)(int, int))dlsym(library, "add");
  printf("%d\\n", add(1, 1));
  fflush(stdout);
  void (*print)(const char *) = (void (*)(const char *))dlsym(library, "print");
  print("dlopen: hello world");
  Dl_info info;
  dladdr((void *)print, &info);
  printf("%s %s\\n", info.dli_fname, info.dli_sname);
  dl_iterate_phdr(visit, NULL);
  printf("%s\\n", dlsym(library, "missing") ? "found" : dlerror());
  printf("%d\\n", dlclose(library));
  return 0;
}
"""
RUST_PROGRAM = """
use std::ffi::{c_char, c_int, c_void, CStr, CString};
#[repr(C)]
struct DlInfo {
    fname: *const c_char,
    base: *mut c_void,
    sname: *const c_char,
    address: *mut c_void,
}
extern "C" {
    fn dlopen(name: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
    fn dlerror() -> *const c_char;
    fn dlclose(handle: *mut c_void) -> c_int;
}
fn main() {
    let path = CString::new(std::env::args().nth(1).unwrap()).unwrap();
    unsafe {
        let library = dlopen(path.as_ptr(), 1);
        let find = |name: &str| dlsym(library, CString::new(name).unwrap().as_ptr());
        let add: extern "C" fn(c_int, c_int) -> c_int = std::mem::transmute(find("add"));
        println!("{}", add(1, 1));
        let print: extern "C" fn(*const c_char) = std::mem::transmute(find("print"));
        print(CString::new("dlopen: hello world").unwrap().as_ptr());
        let mut info = std::mem::zeroed::<DlInfo>();
        dladdr(print as *const c_void, &mut info);
        println!("{:?} {:?}", CStr::from_ptr(info.fname), CStr::from_ptr(info.sname));
        assert!(find("missing").is_null());
        println!("{:?}", CStr::from_ptr(dlerror()));
        println!("{}", dlclose(library));
    }
}
"""
PROGRAMS = {"c": C_PROGRAM, "c++": C_PROGRAM, "rust": RUST_PROGRAM}


@pytest.mark.parametrize(
    "language",
    [
        "c",
        pytest.param("c++", marks=pytest.mark.cxx),
        pytest.param("rust", marks=pytest.mark.rust),
    ],
)
def test_example(tmp_path: Path, preloads: Callable[..., dict[str, str]], language: str) -> None:
    library = compile_library(tmp_path, "libexample.so", LIBRARY[language], language=language)
    program = compile_program(tmp_path, "preload", PROGRAMS[language], language=language)
    alone = run([program, library])
    assert alone.stdout.startswith("2\ndlopen: hello world\n")
    environment = preloads()
    ours = run([program, library], env=environment)
    assert ours.stdout == alone.stdout
    log = tmp_path / "log"
    environment |= {"DLOPEN_LOG": "trace", "DLOPEN_LOG_FILE": str(log)}
    assert run([program, library], env=environment).stdout == alone.stdout
    lines = log.read_text()
    assert re.search(rf"open .*{re.escape(str(library))}", lines)
    assert re.search(rf"bind {re.escape(str(library))}: \S+ -> ", lines)
    assert re.search(rf"find {re.escape(str(library))}: add -> ", lines)
