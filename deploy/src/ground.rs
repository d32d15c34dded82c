//! What a world stands on: addresses of the loopback interface, or a network whose links can fail.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use crate::keeper::Keeper;
use crate::net::Net;
use crate::ports::ADDRESSES;

/// See the module.
#[derive(Debug)]
pub enum Ground {
    /// For everybody: needs no rights.
    Loopback,
    /// Each region in a namespace of its own; needs root.
    Namespaces(Net),
}

impl Ground {
    /// Where a region's coordinator and agent listen; regions go by their place in the world.
    ///
    /// # Errors
    /// There are too many regions.
    pub fn node(&self, region: usize) -> Result<IpAddr> {
        match self {
            Self::Loopback => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Self::Namespaces(_) => Ok(Net::address(u8::try_from(region)?)),
        }
    }

    /// Where a region's databases and service listen.
    ///
    /// # Errors
    /// There are too many regions.
    pub fn cluster(&self, region: usize) -> Result<IpAddr> {
        match self {
            Self::Loopback => ADDRESSES.get(region + 1).copied().context("too many clusters"),
            Self::Namespaces(_) => self.node(region),
        }
    }

    /// Starts the keeper of the next region.
    ///
    /// # Errors
    /// It cannot be started, or its region cannot be connected.
    pub async fn keeper(&self, name: &str, folder: &std::path::Path) -> Result<Keeper> {
        match self {
            Self::Loopback => Keeper::start(name, folder),
            Self::Namespaces(net) => {
                let keeper = Keeper::start_by(&Net::launcher()?, name, folder)?;
                net.connect(nix::unistd::Pid::from_raw(keeper.mark().pid)).await?;
                Ok(keeper)
            }
        }
    }

    /// Does something inside a region: where its own loopback addresses are.
    ///
    /// # Errors
    /// There is no such region.
    pub async fn within<W>(&self, region: usize, work: W) -> Result<W::Output>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        match self {
            Self::Loopback => Ok(work.await),
            Self::Namespaces(net) => net.inside(region, work)?.await.context("the work in a region was lost"),
        }
    }

    /// Where coordinators and agents show their pages: always a loopback address, of their region.
    #[must_use]
    pub const fn pages(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    /// The network.
    ///
    /// # Errors
    /// There is none that could fail.
    pub fn net(&self) -> Result<&Net> {
        match self {
            Self::Loopback => anyhow::bail!("loopback addresses cannot be cut off"),
            Self::Namespaces(net) => Ok(net),
        }
    }
}
