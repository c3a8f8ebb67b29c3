"""A process in a sandbox's pod that is none of the agent's: what an ephemeral container or `kubectl exec` would be.

Run as `kubectl exec -i POD -- python3 - WITNESS < bystander.py`. It serves on the pod's loopback, on UNIX sockets by path
and by abstract name, and gives connected sockets away; it writes down whoever sends something, and stays until the pod ends.
"""

import os
import socket
import sys
import threading

witness = (sys.argv[1], 7000)
os.chdir("/var/tmp")
open("target", "w").write("untouched")
seen = open("seen", "a", buffering=1)


def answer(listener, name):
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=talk, args=(connection, name), daemon=True).start()


def talk(connection, name):
    try:
        connection.settimeout(5)
        what = connection.recv(512)
        if what:
            seen.write(f"{name} {what!r}\n")
            connection.sendall(b"forbidden")
    except OSError:
        pass
    finally:
        connection.close()


def give(listener):
    while True:
        connection = listener.accept()[0]
        try:
            with socket.create_connection(witness, timeout=5) as gift:
                socket.send_fds(connection, [b"x"], [gift.fileno()])
        except OSError:
            pass
        finally:
            connection.close()


def unix(name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    if not name.startswith("\0"):
        os.chmod(name, 0o777)
    listener.listen(64)
    return listener


servers = [
    (answer, socket.create_server(("127.0.0.1", 7003)), "loopback"),
    (answer, unix("/var/tmp/service.sock"), "path"),
    (answer, unix("\0openshell-service"), "abstract"),
    (give, unix("/var/tmp/helper.sock")),
]
if os.fork():
    os._exit(0)
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(null, standard)
for run, *arguments in servers:
    threading.Thread(target=run, args=arguments).start()
