#!/usr/bin/env bash
# A Slurm of one node, this machine, in a folder of its own: to try `--launcher slurm` out, and for its tests.
#
#     apt-get install --no-install-recommends slurmctld slurmd slurm-client munge   # once; they need not be running
#     eval "$(tools/one_node_slurm.sh start)"    # prints SLURM_CONF=…: where sbatch and squeue find it
#     sinfo
#     tools/one_node_slurm.sh stop
#
# As root (its jobs are root's too), without systemd, cgroups and accounting; a requeued job starts again after seconds,
# not two minutes (cred_expire). The folder is $ONE_NODE_SLURM, by default /tmp/one_node_slurm; several may run side by
# side, with one folder and one ONE_NODE_SLURM_PORT (of two) each.
set -euo pipefail

folder=${ONE_NODE_SLURM:-/tmp/one_node_slurm}
port=${ONE_NODE_SLURM_PORT:-36817}
export SLURM_CONF=$folder/slurm.conf

say() { echo "one_node_slurm: $*" >&2; }

stop() {
    if [ -f "$folder/slurmctld.pid" ] && [ -d "/proc/$(cat "$folder/slurmctld.pid")" ]; then
        timeout 10 scancel --user "$(id -un)" || true
        for _ in $(seq 100); do [ -n "$(timeout 10 squeue --noheader 2>/dev/null)" ] || break; sleep 0.1; done
    fi
    for name in slurmd slurmctld munged; do # at once: by itself slurmctld takes six seconds to write down its state
        [ ! -f "$folder/$name.pid" ] || kill -9 "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    rm -rf "$folder"
}

start() {
    for program in munged slurmctld slurmd sbatch sinfo; do
        command -v "$program" >/dev/null || { say "no $program: apt-get install slurmctld slurmd slurm-client munge"; exit 1; }
    done
    [ "$(id -u)" = 0 ] || { say "must be started by root"; exit 1; }
    [ -e "$folder" ] && { say "$folder is there: stop it first"; exit 1; }
    install -d -m 755 "$folder" "$folder/state" "$folder/spool"

    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2>/dev/null
    chmod 400 "$folder/munge.key"
    # --force: the folder's parents may be writable by others, which munge warns of
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2>/dev/null

    host=$(hostname -s)
    cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    slurmctld || { say "slurmctld does not start"; cat "$folder/slurmctld.log" >&2; exit 1; }
    slurmd -N "$host" 2>/dev/null || slurmd || { say "slurmd does not start"; cat "$folder/slurmd.log" >&2; exit 1; }
    for _ in $(seq 150); do
        [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && { echo "export SLURM_CONF=$SLURM_CONF"; return; }
        sleep 0.2
    done
    say "its node is not ready after 30 s (see $folder/*.log)"
    exit 1
}

case ${1:-} in
start | stop) "$1" ;;
*) say "usage: $0 start|stop"; exit 2 ;;
esac
