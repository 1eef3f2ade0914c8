"""Programs that reach for what is outside: files, the environment, the network, other processes.

$OUTSIDE is a folder of ours that holds ``victim`` and ``doomed``, $HOME our home and $PARENT our process id.
"""

from __future__ import annotations

from tests.evaluation.sandbox.attacks import Attack

_FRAME = """
import ctypes, fcntl, os, resource, signal, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def succeed(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), 'refused')
def attack():
    {}
    return 'escaped'
"""


def _reach(name: str, body: str, detail: str = "Error", *, works: bool = True) -> Attack:
    """``works`` unless it would harm us, or needs more rights than we may have."""
    code = _FRAME.format("\n    ".join(body.strip().splitlines()))
    return Attack(name, code, ("failed",), detail, works_unconfined=works)


_HOME_HOLDS_THE_INTERPRETER_ALONE = """
if all(sys.executable.startswith(f'$HOME/{name}/') for name in os.listdir('$HOME')):
    raise OSError('Error: nothing else is there')
"""
_LIBRARY = "os.path.dirname(os.__file__)"

FILES = [
    _reach("write_outside", "open('$OUTSIDE/new', 'w').write('x')"),
    _reach("delete_outside", "os.remove('$OUTSIDE/doomed')"),
    _reach("truncate_outside", "os.open('$OUTSIDE/victim', os.O_RDONLY | os.O_TRUNC)"),
    _reach("rename_outside", "os.rename('$OUTSIDE/victim', '$OUTSIDE/renamed')", works=False),
    _reach("link_outside", "os.link('$OUTSIDE/victim', '$OUTSIDE/link')"),
    _reach("read_outside", "open('$OUTSIDE/victim').read()"),
    _reach("read_through_the_root", "open('/../../..$OUTSIDE/victim').read()"),
    _reach("list_outside", "os.listdir('$OUTSIDE')"),
    _reach("list_home", _HOME_HOLDS_THE_INTERPRETER_ALONE),
    _reach("read_passwords", "open('/etc/passwd').read()"),
    _reach("write_into_the_interpreter", f"open({_LIBRARY} + '/hiplora_was_here.py', 'w')", works=False),
    _reach("truncate_the_interpreter", "os.truncate(os.__file__, 0)", works=False),
    _reach("delete_from_the_interpreter", "os.remove(os.__file__)", works=False),
    _reach("change_mode", "os.chmod(os.__file__, 0o777)", works=False),
    _reach("change_times", "os.utime(os.__file__)", works=False),
    _reach(
        "symlink_out", "os.symlink('/', '/tmp/way-out-$PARENT')\nopen('/tmp/way-out-$PARENT/etc/passwd')", works=False
    ),
    _reach("devices", "open('/dev/mem', 'rb')\nopen('/dev/kmsg', 'rb')", works=False),
]

SECRETS = [
    # Both processes start with an empty environment even where nothing confines them.
    _reach("read_environment", "if not os.environ: raise OSError('Error: empty')", works=False),
    _reach("read_first_environ", "open('/proc/1/environ', 'rb').read()", works=False),
    _reach("read_parent_environ", "open('/proc/$PARENT/environ', 'rb').read()"),
    _reach("read_own_environ", "open('/proc/self/environ', 'rb').read()"),
    _reach("read_own_memory", "open('/proc/self/mem', 'rb')"),
    _reach("read_parent_memory", "succeed(libc.process_vm_readv($PARENT, None, 0, None, 0, 0))", "PermissionError"),
]

NETWORK = [
    _reach("tcp", "socket.create_server(('127.0.0.1', 0))", "PermissionError"),
    _reach("udp", "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))", "PermissionError"),
    _reach("unix_socket", "socket.socket(socket.AF_UNIX).bind('\\0hiplora-$PARENT')", "PermissionError"),
    _reach("socket_pair", "socket.socketpair()", "PermissionError"),
]

PROCESSES = [
    _reach("kill_parent", "os.kill($PARENT, signal.SIGKILL)", "PermissionError", works=False),
    _reach("signal_parent", "os.kill($PARENT, 0)", "PermissionError"),
    _reach("signal_family", "os.kill(os.getppid(), 0)", "PermissionError"),
    _reach("signal_group", "os.killpg(0, 0)", "PermissionError"),
    _reach("signal_everyone", "os.kill(-1, 0)", "PermissionError", works=False),
    # A descriptor can be told to send a signal when it becomes readable.
    _reach("signal_by_descriptor", "fcntl.fcntl(0, fcntl.F_SETOWN, $PARENT)", "PermissionError"),
    _reach("signal_by_terminal", "fcntl.ioctl(0, 0x8901, struct.pack('i', $PARENT))", "PermissionError", works=False),
    _reach("limits_of_parent", "resource.prlimit($PARENT, resource.RLIMIT_CORE)", "PermissionError"),
    _reach("priority_of_parent", "os.setpriority(os.PRIO_PROCESS, $PARENT, 0)", "PermissionError", works=False),
    _reach("ptrace_parent", "succeed(libc.ptrace(16, $PARENT, None, None))", "PermissionError", works=False),
    _reach("trace_me", "succeed(libc.ptrace(0, 0, None, None))", "PermissionError"),
    _reach("orphan_fork", "if os.fork() == 0:\n    os.setsid()\n    os._exit(0)", "PermissionError"),
    _reach("exec", "os.execv('/bin/true', ['true'])", "PermissionError", works=False),
    _reach("exec_interpreter", "os.execv(sys.executable, ['python', '-c', ''])", "PermissionError", works=False),
    _reach("subprocess", "subprocess.run(['/bin/true'])", "PermissionError"),
    _reach("posix_spawn", "os.posix_spawn('/bin/true', ['true'], {})"),
    _reach("shell", "succeed(-os.system('true'))"),
    _reach("own_session", "os.setsid()", "PermissionError", works=False),
]

PRIVILEGES = [
    # User, mount, process and network namespaces.
    _reach("nested_user_namespace", "succeed(libc.unshare(0x10000000))", "PermissionError", works=False),
    _reach("nested_mount_namespace", "succeed(libc.unshare(0x00020000))", "PermissionError", works=False),
    _reach("nested_by_clone", "succeed(libc.syscall(56, 0x10000011, 0, 0, 0, 0))", works=False),
    _reach("mount", "succeed(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))", "PermissionError", works=False),
    _reach("chroot", "os.chroot('/tmp')", "PermissionError", works=False),
    _reach("become_another", "os.setuid(12345)", "PermissionError", works=False),
    _reach("raise_limits", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", works=False),
    _reach(
        "inherited_descriptors",
        """
found = []
for fd in range(4096):
    try:
        os.fstat(fd)
        found.append(fd)
    except OSError:
        pass
# The standard streams, the requests and the replies.
if len(found) == 5: raise OSError('Error: no more than there must be')
""",
        works=False,
    ),
]

REACHING_OUT = [*FILES, *SECRETS, *NETWORK, *PROCESSES, *PRIVILEGES]
