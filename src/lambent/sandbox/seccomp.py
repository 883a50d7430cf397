"""The system calls that a sandbox may make: an allow-list, assembled here into classic BPF and loaded by the process it binds.

Namespaces hide things; the filter shrinks the kernel that hostile code can talk to. A call is allowed when it stands in the table of the
architecture and not in ``DENIED``; what stands in no table is refused too. The ways to be refused:

* **EPERM**: calls that Linux has and a function has no business with: mounts, namespaces, tracing and reading other processes, BPF, perf,
  userfaultfd, io_uring, keyrings, modules, clocks, handles. It is also what the kernel itself would say to a process without capabilities,
  so that programs already cope with it (libuv falls back to epoll without io_uring, glibc's ``getifaddrs`` and Go's runtime likewise).
* **ENOSYS**: numbers this table does not know, that is, calls newer than it, and ``clone3``, whose flags lie behind a pointer where a
  filter cannot look; C libraries fall back to the older call.
* **An argument decides**: ``clone`` and ``unshare`` (no new namespaces), ``socket`` (Unix, TCP, UDP, ping, and route netlink, which
  lists interfaces), ``ioctl`` (no typing into terminals), ``personality``, ``mknod`` (no devices).
* **Death**: another architecture's entry (32-bit calls, x32), where all numbers mean something else.

The kernel runs the filter once per call number when it is loaded, and remembers the numbers that it allows without looking at arguments;
those never run it again (Linux 5.11). For the rest the program is a binary tree over ranges of equal fate: eight comparisons.

Pure stdlib and Python 3.8 syntax, since ``load`` runs in a child of a zygote of any supported interpreter: this file imports nothing of
Lambent's. Sources of fact: the kernel's ``seccomp(2)``, ``linux/filter.h``, ``linux/audit.h`` and the two syscall tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Python 3.8 cannot evaluate these
    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
    Program = list[Instruction]

# What follows are call numbers in order, "first: name name ...", as in the kernel's tables.
_X86_64 = """
0: read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64
18: pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep
36: getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname
52: getpeername socketpair setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget
69: msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link
87: unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid
103: syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid
118: getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo
130: rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam
143: sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock
150: munlock mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct
164: settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
177: get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead setxattr
189: lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill
201: time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit io_cancel
211: get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address
219: restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
228: clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind set_mempolicy
239: get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key
250: keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat
261: futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
274: get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
286: timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
297: rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at
305: clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr
316: renameat2 seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2
328: pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq
"""

_AARCH64 = """
0: io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr
12: llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait
23: dup dup3 fcntl inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat
36: symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs fstatfs truncate ftruncate fallocate faccessat chdir fchdir
51: chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2 quotactl getdents64 lseek read write readv writev pread64
68: pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync
84: sync_file_range timerfd_create timerfd_settime timerfd_gettime utimensat acct capget capset personality exit exit_group waitid
96: set_tid_address unshare futex set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module
107: timer_create timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
116: syslog ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity sched_getaffinity
124: sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack
133: rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn setpriority getpriority
142: reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid setfsgid times setpgid getpgid getsid
157: setsid getgroups setgroups uname sethostname setdomainname getrlimit setrlimit getrusage umask prctl getcpu gettimeofday
170: settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink mq_timedsend
183: mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt
198: socket socketpair bind listen accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg
212: recvmsg readahead brk munmap mremap add_key request_key keyctl clone execve mmap fadvise64 swapon swapoff mprotect msync mlock
229: munlock mlockall munlockall mincore madvise remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages
240: rt_tgsigqueueinfo perf_event_open accept4 recvmmsg
260: wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at open_by_handle_at clock_adjtime syncfs setns sendmmsg
270: process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf
281: execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents
293: rseq kexec_file_load
"""

_EVERYWHERE = """
424: pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
434: pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd
444: landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
450: set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
459: lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat open_tree_attr
468: file_getattr file_setattr
"""

DENIED = """
mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr statmount listmount setns
ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd perf_event_open bpf userfaultfd lookup_dcookie
io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl kexec_load kexec_file_load init_module finit_module delete_module
create_module get_kernel_syms query_module reboot swapon swapoff name_to_handle_at open_by_handle_at fanotify_init fanotify_mark quotactl
quotactl_fd settimeofday clock_settime clock_adjtime adjtimex acct iopl ioperm modify_ldt sethostname setdomainname syslog vhangup uselib
ustat sysfs _sysctl nfsservctl getpmsg putpmsg afs_syscall tuxcall security vserver epoll_ctl_old epoll_wait_old migrate_pages move_pages
set_mempolicy_home_node memfd_secret lsm_get_self_attr lsm_set_self_attr lsm_list_modules
"""
ABSENT = "clone3 set_thread_area get_thread_area"  # ENOSYS though known

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_LD, _LD_LOW_AND, _JA, _JEQ, _JGE, _JSET, _RET = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
REFUSE = _ERRNO | errno.EPERM
UNKNOWN = _ERRNO | errno.ENOSYS
NO_FAMILY = _ERRNO | errno.EAFNOSUPPORT
NO_PROTOCOL = _ERRNO | errno.EPROTONOSUPPORT

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. In ``clone`` the bit of NEWTIME belongs to the exit signal.
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_NEW_TIME = 0x00000080


def _numbers(*tables: str) -> dict[str, int]:
    names: dict[str, int] = {}
    for line in "".join(tables).strip().splitlines():
        first, _, rest = line.partition(":")
        for offset, name in enumerate(rest.split()):
            names.setdefault(name, int(first) + offset)
    return names


NUMBERS = {"x86_64": _numbers(_X86_64, _EVERYWHERE), "aarch64": _numbers(_AARCH64, _EVERYWHERE)}


def _return(value: int) -> Program:
    return [(_RET, 0, 0, value)]


def _load_argument(index: int) -> Program:
    """The low half of an argument; every argument that is checked here is an ``int`` to the kernel, which ignores the high half too."""
    return [(_LD, 0, 0, _ARG0 + 8 * index)]


def _one_of(values: list[int], then: Program, otherwise: Program) -> Program:
    """Compare the accumulator with ``values``; each branch must end in a return."""
    program: Program = []
    for position, value in enumerate(values):
        program.append((_JEQ, len(values) - position, 0, value))
    program.append((_JA, 0, 0, len(then)))
    return program + then + otherwise


def _no_flags(mask: int) -> Program:
    return [*_load_argument(0), (_JSET, 0, 1, mask), *_return(REFUSE), *_return(ALLOW)]


def _mode_is_no_device(argument: int) -> Program:
    plain = [0, 0o100000, 0o010000, 0o140000]  # none given, file, pipe, socket
    return [*_load_argument(argument), (_LD_LOW_AND, 0, 0, 0o170000), *_one_of(plain, _return(ALLOW), _return(REFUSE))]


def _socket() -> Program:
    def of_type(types: list[int], then: Program) -> Program:
        return [*_load_argument(1), (_LD_LOW_AND, 0, 0, 0xF), *_one_of(types, then, _return(REFUSE))]

    unix = of_type([1, 2, 5], _return(ALLOW))
    internet = of_type([1, 2], [*_load_argument(2), *_one_of([0, 6, 17, 1, 58], _return(ALLOW), _return(NO_PROTOCOL))])
    netlink = [*_load_argument(2), *_one_of([0], _return(ALLOW), _return(REFUSE))]
    others = _one_of([17], _return(REFUSE), _return(NO_FAMILY))  # packet sockets: what the kernel says without CAP_NET_RAW
    rest = _one_of([16], netlink, others)
    return [*_load_argument(0), *_one_of([1], unix, _one_of([2, 10], internet, rest))]


def _checks() -> dict[str, Program]:
    """Calls whose arguments decide."""
    return {
        "clone": _no_flags(_NEW_NAMESPACES),
        "unshare": _no_flags(_NEW_NAMESPACES | _NEW_TIME),
        "socket": _socket(),
        "socketpair": [*_load_argument(0), *_one_of([1], _return(ALLOW), _return(NO_FAMILY))],
        "ioctl": [*_load_argument(1), *_one_of([0x5412, 0x541C], _return(REFUSE), _return(ALLOW))],  # TIOCSTI, TIOCLINUX
        "personality": [*_load_argument(0), *_one_of([0, 0xFFFFFFFF, 0x0040000], _return(ALLOW), _return(REFUSE))],
        "mknod": _mode_is_no_device(1),
        "mknodat": _mode_is_no_device(2),
    }


def verdicts(arch: str) -> dict[int, Program]:
    """What happens to each known call number of ``arch``: a piece of program that ends in returns."""
    denied, absent, checks = set(DENIED.split()), set(ABSENT.split()), _checks()
    fates: dict[int, Program] = {}
    for name, number in NUMBERS[arch].items():
        if name in checks:
            fates[number] = checks[name]
        elif name in denied or name in absent:
            fates[number] = _return(REFUSE if name in denied else UNKNOWN)
        else:
            fates[number] = _return(ALLOW)
    return fates


def _ranges(fates: dict[int, Program]) -> list[tuple[int, Program]]:
    """(first number, fate) for every run of numbers with the same fate; the last run goes on for ever."""
    runs: list[tuple[int, Program]] = []
    for number in range(max(fates) + 2):
        fate = fates.get(number, _return(UNKNOWN))
        if not runs or runs[-1][1] != fate:
            runs.append((number, fate))
    return runs


def _tree(runs: list[tuple[int, Program]]) -> Program:
    """A balanced search over ``runs`` with the call number in the accumulator. Pieces are relative, so that they nest."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    low, high = _tree(runs[:middle]), _tree(runs[middle:])
    first = runs[middle][0]
    if len(low) <= 0xFF:
        return [(_JGE, len(low), 0, first), *low, *high]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(low)), *low, *high]  # a conditional jump reaches 255 at most


def compile_filter(arch: str) -> bytes:
    """The filter for ``arch`` (``x86_64`` or ``aarch64``, as in ``os.uname().machine``) as an array of ``struct sock_filter``.

    Raises ``ValueError`` for another architecture.
    """
    if arch not in AUDIT_ARCH:
        raise ValueError(f"no seccomp filter for {arch}; known are {', '.join(sorted(AUDIT_ARCH))}")
    program: Program = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, AUDIT_ARCH[arch]), *_return(KILL), (_LD, 0, 0, _NR)]
    if arch == "x86_64":
        program += [(_JGE, 0, 1, _X32_BIT), *_return(KILL)]
    program += _tree(_ranges(verdicts(arch)))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class _Fprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2


def load(program: bytes) -> None:
    """Bind the calling thread, and all that it will fork or exec, to ``program`` and to no_new_privs, for ever. Raises ``OSError``."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    packed = _Fprog(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(packed), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, "prctl(PR_SET_SECCOMP): " + os.strerror(number))


def unlisted(arch: str) -> set[str]:
    """Names in ``DENIED`` and ``ABSENT`` that ``arch`` lacks; for the test that finds misspellings."""
    return {name for name in (DENIED + ABSENT).split() if name not in NUMBERS[arch]}
