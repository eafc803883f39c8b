"""What is run inside a unit of the installed box to find out what it can do."""

OPEN = """
import glob, json, os, socket, stat
found = {}
def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = os.strerror(error.errno)
nodes = glob.glob("/dev/video*") + glob.glob("/dev/snd/*") + glob.glob("/dev/gpiochip*")
nodes += ["/dev/video0", "/dev/snd/pcmC0D1c", "/dev/gpiochip0", "/dev/mem", "/dev/vda"]
for node in sorted(set(nodes)):
    attempt(node, lambda: os.close(os.open(node, os.O_RDWR)))
"""
FROM_AGENT = (
    OPEN
    + """
numbers = {"video": (81, 0), "gpio": (254, 0), "sound": (116, 0)}
for name, (major, minor) in numbers.items():
    path = f"/var/lib/hearing-room/{name}"
    attempt(f"mknod {name}", lambda: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(major, minor)))
def write(folder):
    os.close(os.open(f"{folder}/probe", os.O_CREAT | os.O_RDWR))
for folder in ("/etc", "/usr/local/lib", "/opt/hearing-room", "/sys/class", "/var/lib", "/dev",
               "/run", "/run/lock", "/dev/shm"):
    attempt(f"write {folder}", lambda: write(folder))
attempt("own state", lambda: write("/var/lib/hearing-room"))
attempt("secrets", lambda: os.listdir("/etc/hearing-room/secrets"))
attempt("network", lambda: socket.socket(socket.AF_INET).close())
attempt("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
print(json.dumps(found), flush=True)
"""
)
FROM_SENSES = (
    OPEN
    + """
families = "AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK AF_BLUETOOTH AF_ALG"
for family in families.split():
    attempt(family, lambda: socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close())
def reach(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
for path in ("/run/dbus/system_bus_socket", "/run/systemd/journal/stdout", "/run/systemd/notify",
             "/run/hearing-room/control.sock", "/run/hearing-room-hands/hands.sock"):
    attempt(f"reach {path}", lambda: reach(path))
wrote, tried = [], 0
for folder, folders, files in os.walk("/"):
    if folder.startswith("/proc"):
        folders[:] = []
        continue
    for path in [f"{folder}/probe", *(f"{folder}/{name}" for name in files[:20])]:
        tried += 1
        new = path.endswith("/probe")
        try:
            info = None if new else os.lstat(path)
            if info is not None and not stat.S_ISREG(info.st_mode):
                continue
            fd = os.open(path, os.O_WRONLY | os.O_CREAT if new else os.O_WRONLY, 0o600)
        except OSError:
            continue
        try:
            os.write(fd, b"a picture")
            wrote.append(path)
        except OSError:
            pass
        os.close(fd)
found["wrote"], found["tried"] = wrote[:20], tried
memory = os.memfd_create("picture")
attempt("memfd", lambda: os.write(memory, b"a picture"))
attempt("shm", lambda: os.close(os.open("/dev/shm/picture", os.O_CREAT | os.O_RDWR)))
attempt("processes", lambda: open("/proc/1/cmdline").close())
attempt("room", lambda: open("/etc/hearing-room/room.toml").close())
print(json.dumps(found), flush=True)
"""
)


HOG = """
held = []
while True:
    held.append(bytearray(b"x" * (16 << 20)))
"""
BOMB = """
import json, os, time
children = 0
try:
    while children < 500:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        children += 1
except OSError as error:
    print(json.dumps({"children": children, "why": os.strerror(error.errno)}), flush=True)
os.killpg(0, 9)
"""
