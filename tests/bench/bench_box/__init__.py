"""A virtual hearing-room box: Debian under QEMU with real kernel drivers behind its cameras,
microphones, GPIO lines, displays, USB ports and network, each of which can be made to fail.

    recipe    what is in the image: packages, kernel modules, files (data only)
    places    where images and run state live
    host      this machine: tools, archive, subprocesses
    wheels, kernel, media, image    the build, in this order
    sockets   QMP and the guest agent
    qemu      the command line of the machine
    machine   one QEMU process: start, snapshot, power cut
    stamp     what image and hands are made from
    screen    a monitor being plugged and unplugged, over VNC
    box       what a scenario holds in its hands
    project   the checkout under test, inside a box

The other half, `bench_hands`, runs inside the box.
"""
