"""Where this process's memory comes from."""

import os
import sys

SETTING = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def ask_for_huge_pages() -> None:
    """Starts this process anew, as the same process, with a memory of huge pages.

    XLA on CPU takes the memory of a step anew for every step, and by pages of 4 KiB that takes up
    to a fifth of it. The C library can ask for huge ones (glibc 2.35), but only if its own variable
    says so when it is loaded. Does nothing where that variable is set already, where it is another
    library's, or where the kernel gives such pages without being asked, or to nobody.
    """
    name, value = SETTING
    if sys.platform != "linux" or name in os.environ or not sys.executable:
        return
    try:
        with open(_HUGE_PAGES) as file:
            on_request = "[madvise]" in file.read()
        if on_request and os.confstr("CS_GNU_LIBC_VERSION"):
            os.environ[name] = value
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except (OSError, ValueError):
        return  # it goes on as it is
