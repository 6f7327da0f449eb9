"""The filter of system calls, as bytes of BPF for seccomp.

A program may compute, read and write its files, and start threads. What it has
no use for, and what the kernel's flaws are mostly found in, fails with EPERM:
new processes and programs, tracing and reading other processes, mounts,
namespaces, sockets, keys, BPF, io_uring, shared memory that no limit counts.
"""

import errno
import platform
import struct

# (x86_64, aarch64); None: aarch64 never had it.
_DENIED = {
    # processes and programs; clone is allowed for threads, see below
    'fork': (57, None), 'vfork': (58, None), 'execve': (59, 221),
    'execveat': (322, 281),
    # other processes
    'ptrace': (101, 117), 'process_vm_readv': (310, 270),
    'process_vm_writev': (311, 271), 'kcmp': (312, 272),
    'pidfd_getfd': (438, 438), 'process_madvise': (440, 440),
    'perf_event_open': (298, 241),
    # namespaces and mounts
    'unshare': (272, 97), 'setns': (308, 268), 'mount': (165, 40),
    'umount2': (166, 39), 'pivot_root': (155, 41), 'chroot': (161, 51),
    'open_tree': (428, 428), 'move_mount': (429, 429), 'fsopen': (430, 430),
    'fsconfig': (431, 431), 'fsmount': (432, 432), 'fspick': (433, 433),
    'mount_setattr': (442, 442), 'name_to_handle_at': (303, 264),
    'open_by_handle_at': (304, 265), 'quotactl': (179, 60),
    'swapon': (167, 224), 'swapoff': (168, 225), 'acct': (163, 89),
    'fanotify_init': (300, 262),
    # the kernel itself
    'bpf': (321, 280), 'userfaultfd': (323, 282), 'io_uring_setup': (425, 425),
    'io_uring_enter': (426, 426), 'io_uring_register': (427, 427),
    'init_module': (175, 105), 'finit_module': (313, 273),
    'delete_module': (176, 106), 'kexec_load': (246, 104),
    'kexec_file_load': (320, 294), 'reboot': (169, 142), 'syslog': (103, 116),
    'personality': (135, 92), 'add_key': (248, 217), 'request_key': (249, 218),
    'keyctl': (250, 219),
    # the network
    'socket': (41, 198),
    # memory that no limit of a process counts
    'memfd_create': (319, 279), 'memfd_secret': (447, 447), 'shmget': (29, 194),
    'shmat': (30, 196), 'semget': (64, 190), 'msgget': (68, 186),
    'mq_open': (240, 180),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # numbers of x86_64's other calling convention

# Of <linux/audit.h>.
_MACHINES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}

# Of <linux/bpf_common.h> and <linux/seccomp.h>.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def denying_filter(machine: str | None = None) -> bytes | None:
  """The filter for a machine, by default this one; None: it is not known."""
  machine = machine or platform.machine()
  if machine not in _MACHINES:
    return None
  column, architecture = _MACHINES[machine]
  code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture),
          (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]

  def fail(test, operand, error):
    code.extend([(test, 0, 1, operand), (_RETURN, 0, 0, _ERROR | error)])

  if machine == 'x86_64':
    fail(_AT_LEAST, _X32, errno.EPERM)
  for numbers in _DENIED.values():
    if numbers[column] is not None:
      fail(_EQUAL, numbers[column], errno.EPERM)
  # clone3 hides its flags in memory: without it, threads are made by clone.
  fail(_EQUAL, _CLONE3[column], errno.ENOSYS)
  code += [(_EQUAL, 0, 3, _CLONE[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT),
           (_ANY_BIT, 1, 0, _CLONE_THREAD),
           (_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
  return b''.join(struct.pack('=HBBI', *each) for each in code)
