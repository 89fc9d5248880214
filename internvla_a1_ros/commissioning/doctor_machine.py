"""Checks of what surrounds the robot: the graph, this host, the command topics, our own nodes, the disk."""

from __future__ import annotations

from internvla_a1_ros.commissioning.doctor_facts import Discovery, Endpoint, Ends, Facts, Machine, NodeState
from internvla_a1_ros.commissioning.doctor_findings import Finding, ok, stop, warning
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Command

OURS = "command"  # the one node that may publish to the robot
# Above 101 the ports of DDS reach into those that Linux hands out to anyone.
LAST_DOMAIN = 101
# The command process needs a core that is free when its tick comes, and the policy one while it looks.
BUSY_SHARE = 0.85
FREE_MEMORY_BYTES = 1 << 30
FULL_GPU_SHARE, HOT_C = 0.95, 85.0
# A shift of recording; and what fills up before anyone looks again.
GOOD_RECORDING_S, LEAST_RECORDING_S = 3600.0, 300.0
# Of the rate that the policy aims at.
SLOW_SHARE = 0.8

_START = "start it (`internvla-a1 up`, or the launch file), then look again"
_CROWDED = "end what does not belong on this host"
_GRANT = "grant 'rtprio 60' and 'memlock unlimited' in /etc/security/limits.d, or CAP_SYS_NICE and CAP_IPC_LOCK (docs/operate.md)"


def check_machine(profile: RobotProfile, facts: Facts) -> list[Finding]:
    """Return the findings on all that a live look knows; of a bag one line that says what it cannot tell."""
    found = []
    if facts.discovery is not None:
        found.append(check_discovery(facts.discovery))
    for command in profile.commands:
        if facts.commands is not None:
            found += check_command(command, facts.commands.get(command.topic, Ends()), facts.namespace)
    if facts.nodes is not None:
        found += [check_policy(facts.nodes.get("policy", NodeState())), check_command_node(facts.nodes.get("command", NodeState()))]
    if facts.machine is not None:
        found += check_host(facts.machine)
        found.append(check_disk(facts.machine, facts))
    if facts.source == "bag":
        what = "not seen in a bag: publishers, latency on the way, domain, load, real-time permissions, command topics, nodes, disk"
        found.append(warning("bag", "bag", what, "look again live, on the machine that drives the robot"))
        found += [warning("whole", "bag", loss, "use what is left, or copy the bag anew from the recorder") for loss in facts.losses]
    return found


def check_discovery(seen: Discovery) -> Finding:
    """Is anybody there, in the domain that was looked at?"""
    peers = f", peers {seen.peers}" if seen.peers else ""
    where = f"domain {seen.domain_id}, range {seen.range or 'the default'}{peers}, {seen.middleware}"
    if not seen.nodes:
        remedy = "start the robot, or set ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE and RMW_IMPLEMENTATION to the robot's"
        return stop("discovery", "graph", f"no other node in {where}", remedy)
    if seen.domain_id > LAST_DOMAIN:
        remedy = f"choose a domain of 0 to {LAST_DOMAIN}: the ports of this one may be taken"
        return warning("discovery", "graph", f"{len(seen.nodes)} other nodes in {where}", remedy)
    return ok("discovery", "graph", f"{', '.join(seen.nodes)} in {where}")


def check_command(command: Command, seen: Ends, namespace: str) -> list[Finding]:
    """Can nobody but our command node command it, by topic or action, and does the robot listen, to what we send and as we offer it?"""
    subject = f"command {command.topic}"
    ours = f"/{namespace}/{OURS}" if namespace else f"/{OURS}"
    others = sorted({_by(end, command) for end in seen.publishers if end.node != ours})
    if others or len(seen.publishers) > 1:
        who = ", ".join(others) or "a second command node"
        return [stop("publishers", subject, f"{who} can command it too", "end it: arming is refused while anyone else commands the robot")]
    alone = "the command node alone" if seen.publishers else "nobody yet (the command node is off or in a dry run)"
    found = [ok("publishers", subject, alone)]
    if not seen.listeners:
        return [*found, warning("listeners", subject, "nobody listens", "start the robot's driver, or correct the topic in the profile")]
    return [*found, check_listeners(command, seen.listeners)]


def _by(end: Endpoint, command: Command) -> str:
    """Who it is; and by what, where that is not how we command."""
    return end.node if end.type == command.type else f"{end.node} (by {end.type})"


def check_listeners(command: Command, listeners: tuple[Endpoint, ...]) -> Finding:
    """Would what we send reach those who listen?"""
    subject = f"command {command.topic}"
    for end in listeners:
        if end.type != command.type:
            what = f"{end.node} expects {end.type}, the profile sends {command.type}"
            return stop("listeners", subject, what, "correct the type in the profile, or use the matching driver")
        for kind, wanted, offered in (
            ("reliability", end.reliability == "reliable", command.qos.reliability == "reliable"),
            ("durability", end.durability == "transient_local", command.qos.durability == "transient_local"),
        ):
            if wanted and not offered:
                what = f"{end.node} asks for {getattr(end, kind)}, the profile offers {getattr(command.qos, kind)}: nothing would arrive"
                return stop("listeners", subject, what, f"set qos.{kind} of this command in the profile")
    return ok("listeners", subject, f"heard by {', '.join(sorted({end.node for end in listeners}))}")


def check_policy(seen: NodeState) -> Finding:
    """Is the engine warm, and does the policy keep its rate? It becomes inactive (and then active) only once its engine is warm."""
    subject, said = "policy", seen.said
    if not seen.lifecycle:
        return warning("engine", subject, "the policy node is not there", _START)
    if seen.lifecycle != "active":
        return warning("engine", subject, f"{seen.lifecycle}: not yet warm and looking", "wait until it is active; its log says why not")
    if not said:
        return warning("engine", subject, "active, but it says nothing on /diagnostics", "look at its log, then look again")
    if seen.message not in ("", "ok"):
        return warning("engine", subject, seen.message, "look at the streams it names")
    rate_hz, target_hz = float(said.get("rate_hz", 0)), float(said.get("target_hz", 0))
    what = f"warm, {rate_hz:.1f} plans a second of {target_hz:.0f}, latency {float(said.get('latency_ms_p50', 'nan')):.0f} ms"
    if rate_hz < SLOW_SHARE * target_hz:
        return warning("engine", subject, what, "look at its log for why there is no plan; a faster engine: docs/deploy.md")
    return ok("engine", subject, what)


def check_command_node(seen: NodeState) -> Finding:
    """Is the command process there and at rest in a state from which it can be armed?"""
    subject = "command process"
    if not seen.lifecycle:
        return warning("command", subject, "the command node is not there", _START)
    if seen.lifecycle != "active":
        return warning("command", subject, f"its lifecycle state is {seen.lifecycle}", "activate it; its log says why it is not")
    mode = seen.said.get("mode", "")
    what = f"{mode or 'silent'}, {'armed' if seen.said.get('armed') == 'True' else 'not armed'}"
    what += ", dry run" if seen.said.get("dry_run") == "True" else ""
    if mode in ("stop", "fault"):
        return stop("command", subject, f"{what}: {seen.said.get('reason', '')}", "find the cause, then call /command/reset")
    if not mode:
        return warning("command", subject, "active, but it says nothing on /command/state", "look at its log, then look again")
    if seen.message not in ("", "ok"):
        return warning("command", subject, f"{what}; {seen.message}", "look at what it names; docs/operate.md has the states")
    return ok("command", subject, what)


def check_host(seen: Machine) -> list[Finding]:
    """Is there room for a loop that must not be late?"""
    subject = "this host"
    load = f"{seen.cpu_share * 100:.0f} % of {seen.cores} cores busy (the doctor included)"
    free = f"{seen.memory_free_bytes / 2**30:.1f} GiB of memory free"
    realtime = f"real-time scheduling {'granted' if seen.realtime else 'refused'}, memory {'' if seen.memory_lockable else 'not '}lockable"
    checks = (
        ("load", load, seen.cpu_share <= BUSY_SHARE, f"{_CROWDED}: ticks would come late"),
        ("memory", free, seen.memory_free_bytes >= FREE_MEMORY_BYTES, f"{_CROWDED}, or add memory"),
        ("realtime", realtime, seen.realtime and seen.memory_lockable, _GRANT),
    )
    found = [ok(check, subject, what) if good else warning(check, subject, what, remedy) for check, what, good, remedy in checks]
    return [*found, check_gpus(seen)]


def check_gpus(seen: Machine) -> Finding:
    """Has the GPU room, and is it cool enough to keep its clocks?"""
    if not seen.gpus:
        return ok("gpu", "this host", "no NVIDIA GPU seen (engines for CPUs only)")
    told = "; ".join(f"{g.name}: {g.busy_share:.0%} busy, memory {g.memory_share:.0%}, {g.temperature_c:.0f} C" for g in seen.gpus)
    if any(gpu.memory_share > FULL_GPU_SHARE for gpu in seen.gpus):
        return warning("gpu", "this host", told, "end what else uses the GPU: the engine may not fit")
    if any(gpu.temperature_c > HOT_C for gpu in seen.gpus):
        return warning("gpu", "this host", told, "cool it: a hot GPU lowers its clocks, and plans come later")
    return ok("gpu", "this host", told)


def check_disk(seen: Machine, facts: Facts) -> Finding:
    """How long could everything that was heard be recorded?"""
    subject = f"disk {seen.record_folder}"
    free = f"{seen.disk_free_bytes / 1e9:.1f} GB free"
    if not seen.disk_writable:
        return warning("disk", subject, f"{free}, but not writable", "choose another --record-folder, or change its owner")
    rate = sum(stream.n_bytes for stream in facts.streams.values()) / facts.seconds if facts.seconds > 0 else 0.0
    if rate == 0:
        return warning("disk", subject, f"{free}; nothing was heard that could be recorded", "start the drivers, then look again")
    lasts_s = seen.disk_free_bytes / rate
    what = f"{free}: {lasts_s / 60:.0f} min of recording at {rate / 1e6:.1f} MB/s"
    if lasts_s < LEAST_RECORDING_S:
        return stop("disk", subject, what, "free space or choose another --record-folder: a full disk stops more than recording")
    return warning("disk", subject, what, "free space before a long session") if lasts_s < GOOD_RECORDING_S else ok("disk", subject, what)
