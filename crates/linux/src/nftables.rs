//! nftables: sends a transaction, reads one table back.

mod counters;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use nft::wire::read::{DynamicElement, Question, dynamic_elements, request};
use nft::wire::{Encoded, encode};
use nft::{Compiled, Family, Op, Transaction};

use crate::error::{Error, Result};
use crate::netlink::{About, NLMSG_ERROR, RECEIVE_BUFFER, answers, connected, split};
use crate::netns::{NetNs, run_in};

/// The table changed while it was read this often: return what there is.
const READ_TRIES: usize = 10;

/// A handle to the nftables of one network namespace, that of the thread that opened it.
pub struct Nftables {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// Whether the kernel knows [`Op::DestroyElements`].
    destroys: bool,
}

impl std::fmt::Debug for Nftables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nftables").finish_non_exhaustive()
    }
}

impl Nftables {
    /// A handle to the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: connected(NETLINK_NETFILTER, "nftables socket")?,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            destroys: release() >= (6, 3),
        })
    }

    /// A handle to another network namespace.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        run_in(netns, Self::open)?
    }

    /// What tells this handle's changes from others'; see [`crate::Monitor::ignore`].
    pub fn port(&self) -> Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        let asked = self.socket.get_address(&mut address);
        asked.map_err(|error| Error::io("nftables socket", "read the address", &error))?;
        Ok(address.port_number())
    }

    /// Makes all changes of a transaction, or none. The error names the first change the kernel
    /// refused, for example `table flatnet: add rule to chain fabric-postrouting: ...`.
    /// Before Linux 6.3 elements to be destroyed are deleted after all else, one by one.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        let is_destroy = |op: &&Op| matches!(op, Op::DestroyElements(..));
        if self.destroys || !transaction.ops.iter().any(|op| is_destroy(&op)) {
            return self.send(transaction);
        }
        let of = |ops| Transaction {
            family: transaction.family,
            table: transaction.table.clone(),
            ops,
        };
        let (destroys, others): (Vec<&Op>, Vec<&Op>) = transaction.ops.iter().partition(is_destroy);
        self.send(&of(others.into_iter().cloned().collect()))?;
        for op in destroys {
            let Op::DestroyElements(set, keys) = op else {
                continue;
            };
            for key in keys {
                let delete = Op::DeleteElements(set.clone(), vec![key.clone()]);
                match self.send(&of(vec![delete])) {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, transaction: &Transaction) -> Result<()> {
        let batch = encode(transaction);
        let object = || format!("table {}", transaction.table);
        self.make_room(batch.bytes.len())
            .map_err(|error| Error::io(object(), "change", &error))?;
        self.socket
            .send(&batch.bytes, 0)
            .map_err(|error| Error::io(object(), "change", &error))?;
        // The kernel has worked through the batch when the call returns: all answers are there.
        let mut refused = None;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(object(), "change", &error)),
            }
            let mut rest = self.buffer.as_slice();
            while let Some((raw, next)) = split(rest) {
                rest = next;
                if let (NLMSG_ERROR, None, Some((errno, message))) =
                    (raw.kind, &refused, raw.error())
                {
                    refused = Some(describe(&object(), &batch, raw.sequence, errno, message));
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What a table holds; [`None`] where it is not there. Elements of a large set may be left out
    /// while the kernel is still growing its hash table after an insertion: a reader that heals
    /// adds what it believes missing, which the kernel takes as no change.
    pub fn read(&mut self, family: Family, table: &str) -> Result<Option<Compiled>> {
        self.read_owned(family, table, &|_| true)
    }

    /// The same without the chains and sets whose names `owns` refuses: their elements, which may
    /// be very many, are not even asked for.
    pub fn read_owned(
        &mut self,
        family: Family,
        table: &str,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Compiled>> {
        for last in (0..READ_TRIES).map(|at| at + 1 == READ_TRIES) {
            let mut compiled = Compiled::empty(family, table);
            let mut interrupted = false;
            let mut ask = |compiled: &mut Compiled, question: &Question| {
                let taken = self.ask(family, table, question, |kind, payload| {
                    compiled.take(kind, payload);
                })?;
                interrupted |= taken;
                Ok(())
            };
            match ask(&mut compiled, &Question::Table) {
                Err(error) if Error::is_not_found(&error) => return Ok(None),
                found => found?,
            }
            for question in [Question::Chains, Question::Rules, Question::Sets] {
                ask(&mut compiled, &question)?;
            }
            compiled.chains.retain(|name, _| owns(name));
            compiled.sets.retain(|name, _| owns(name));
            let fixed = compiled.sets.iter().filter(|(_, set)| !set.dynamic);
            let fixed: Vec<String> = fixed.map(|(name, _)| name.clone()).collect();
            let mut deleted = false;
            for set in fixed {
                match ask(&mut compiled, &Question::Elements(set)) {
                    // Meanwhile.
                    Err(error) if error.is_not_found() => deleted = true,
                    answer => answer?,
                }
            }
            interrupted |= deleted;
            if !interrupted || last {
                return Ok(Some(compiled));
            }
        }
        Ok(None)
    }

    /// What packets added to a dynamic set; see [`nft::Set::dynamic`]. Empty where there is no
    /// such set.
    pub fn dynamic(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<DynamicElement>> {
        let question = Question::Elements(set.to_owned());
        let mut elements = Vec::new();
        for _ in 0..READ_TRIES {
            elements.clear();
            let interrupted = self.ask(family, table, &question, |kind, payload| {
                elements.extend(dynamic_elements(kind, payload));
            });
            match interrupted {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(elements)
    }

    /// Asks, and hands out the answers; true where a change interrupted them.
    fn ask(
        &mut self,
        family: Family,
        table: &str,
        question: &Question,
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let object = || format!("table {table}");
        let about = About {
            object: &object,
            operation: "read",
        };
        let bytes = request(family, table, question, self.sequence);
        self.socket
            .send(&bytes, 0)
            .map_err(|error| Error::io(object(), "read", &error))?;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        answers(socket, buffer, self.sequence, &about, |raw| {
            take(raw.kind, raw.payload());
        })
    }

    /// A batch is one datagram: the socket must be able to hold it.
    fn make_room(&self, len: usize) -> std::io::Result<()> {
        use nix::sys::socket::{setsockopt, sockopt};
        let room = len.saturating_mul(2).max(256 << 10);
        let forced = setsockopt(&self.socket, sockopt::SndBufForce, &room);
        // Without the right to exceed the system's limit, as far as that goes.
        forced
            .or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &room))
            .map_err(std::io::Error::from)
    }
}

/// The kernel's major and minor number; zeros where it does not say.
fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn describe(
    table: &str,
    batch: &Encoded,
    sequence: u32,
    errno: i32,
    message: Option<String>,
) -> Error {
    let object = format!("{table}: {}", batch.about(sequence));
    let error = Error::kernel(object, "change", errno, message.as_deref());
    match errno {
        libc::EOPNOTSUPP | libc::ENOENT => {
            error.hint("are the nf_tables modules for ct, fib, limit, log and nat in this kernel?")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use nft::{ElementKey, Family, Op, Set, Table, Transaction, Type, Value, diff};

    use super::{Nftables, release};
    use crate::netns::NetNs;

    #[test]
    fn elements_are_destroyed_on_every_kernel() {
        assert!(release() >= (5, 0));
        if !testing::root("elements_are_destroyed_on_every_kernel") {
            return;
        }
        let netns = NetNs::anonymous().unwrap();
        let mut nftables = Nftables::open_in(&netns).unwrap();
        let mut set = Set::of([Type::Port]);
        for port in 1..=3 {
            set.add([Value::Port(port)]);
        }
        let mut table = Table::new(Family::Inet, "t");
        table.sets.insert("s".into(), set);
        nftables
            .apply(&diff(None, &table.compile(), |_| true))
            .unwrap();
        let mut left = |destroys, ports: &[u16]| {
            let keys = ports
                .iter()
                .map(|port| ElementKey::of(&[Value::Port(*port)]));
            let ops = vec![
                Op::DestroyElements("s".into(), keys.collect()),
                Op::AddChain("c".into(), None),
            ];
            nftables.destroys = destroys;
            let (family, table) = (Family::Inet, "t".to_owned());
            let changes = Transaction { family, table, ops };
            nftables.apply(&changes).unwrap();
            let found = nftables.read(Family::Inet, "t").unwrap().unwrap();
            assert!(found.chains.contains_key("c"));
            found.sets["s"].elements.len()
        };
        // Of port 9 there is nothing.
        assert_eq!(left(false, &[9, 1]), 2);
        if release() >= (6, 3) {
            assert_eq!(left(true, &[9, 2]), 1);
        }
    }
}
