//! What the shim's children tell: that their program runs or could not be started, and
//! how they ended.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Container, Server, first_of, now};
use crate::shim::process::{self, Heard};
use crate::shim::wire::Reply;
use crate::shim::{ContainerState, cgroup};

impl Server {
    /// Reads the reports of children that are starting.
    pub(super) fn hear_children(&mut self) {
        let starting: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.waits.is_some() && c.child.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in starting {
            self.hear_container(&id);
        }
        let starting: Vec<i32> = self
            .commands
            .iter()
            .filter(|(_, c)| c.reporting)
            .map(|(pid, _)| *pid)
            .collect();
        for pid in starting {
            self.hear_command(pid);
        }
    }

    fn hear_container(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(child) = container
            .child
            .as_ref()
            .filter(|_| container.waits.is_some())
        else {
            return;
        };
        let (pid, heard) = (child.pid.as_raw(), process::hear(&child.report));
        match heard {
            Heard::Nothing => {}
            Heard::Terminal(fd) => {
                if let Err(e) = container.output.set_terminal(fd) {
                    eprintln!("container {id}: taking its terminal: {e}");
                }
                self.hear_container(id);
            }
            Heard::Error(message) => {
                let waits = container.waits.take();
                self.set_state(
                    id,
                    ContainerState::Failed {
                        message: message.clone(),
                        at: now(),
                    },
                );
                self.answer(waits, &Reply::StartFailed(message), Vec::new());
            }
            Heard::Started => {
                container.started = now();
                let (waits, started) = (container.waits.take(), container.started);
                self.set_state(id, ContainerState::Running { pid, started });
                self.answer(waits, &Reply::Started { pid }, Vec::new());
            }
        }
    }

    fn hear_command(&mut self, pid: i32) {
        let Some(command) = self.commands.get_mut(&pid).filter(|c| c.reporting) else {
            return;
        };
        let connection = command.connection;
        match process::hear(&command.child.report) {
            Heard::Nothing => {}
            Heard::Terminal(fd) => {
                if let Some((_, fds)) = &mut command.streams {
                    let copies = [fd.try_clone(), fd.try_clone()];
                    fds.extend(copies.into_iter().flatten());
                    fds.push(fd);
                }
                self.hear_command(pid);
            }
            Heard::Error(message) => {
                command.reporting = false;
                command.connection = None;
                self.answer(connection, &Reply::StartFailed(message), Vec::new());
            }
            Heard::Started => {
                command.reporting = false;
                if let Some((reply, fds)) = command.streams.take() {
                    self.answer(connection, &reply, fds);
                }
            }
        }
    }

    /// Takes note of every child that has ended.
    pub(super) fn reap(&mut self) {
        loop {
            let (pid, code, signal) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code, 0),
                Ok(WaitStatus::Signaled(pid, s, _)) => (pid.as_raw(), 128 + s as i32, s as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if pid == self.state.pause_pid {
                self.state.pause_pid = 0;
                self.changed = true;
            } else if self.commands.contains_key(&pid) {
                // Its report may be on its way still: the client hears that first.
                self.hear_command(pid);
                if let Some(command) = self.commands.remove(&pid) {
                    self.answer(command.connection, &Reply::Exited { code }, Vec::new());
                }
            } else {
                let of = |c: &Container| c.child.as_ref().is_some_and(|c| c.pid.as_raw() == pid);
                let id = self
                    .containers
                    .iter()
                    .find(|(_, c)| of(c))
                    .map(|(id, _)| id.clone());
                if let Some(id) = id {
                    self.container_ended(&id, code, signal);
                }
            }
        }
    }

    fn container_ended(&mut self, id: &str, code: i32, signal: i32) {
        self.hear_container(id);
        let termination = self.termination_file(id);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.child = None;
        // What it left behind ends with it, and so do commands run in it.
        if let Err(e) = cgroup::kill(&container.cgroup) {
            eprintln!("container {id}: killing what it left: {e}");
        }
        container.output.finish();
        let exited = ContainerState::Exited {
            code,
            signal,
            started: container.started,
            finished: now(),
            message: first_of(&termination),
            oom: cgroup::oom_killed(&container.cgroup),
        };
        self.garbage.push(container.cgroup.clone());
        let failed = self.state.containers.get(id).map(|c| &c.state);
        if !matches!(failed, Some(ContainerState::Failed { .. })) {
            self.set_state(id, exited);
        }
    }
}
