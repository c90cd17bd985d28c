//! The service: one loop on the boot processor that moves packets, answers requests, and until the model is there, loads it.
//!
//! Whatever keeps the model from being served is not the end of the machine: it goes on answering `/health` with the reason,
//! so that an operator without the console learns it too.

use core::fmt;
use core::time::Duration;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use attestation::events::ModelIdentity;
use engine::{Engine, EngineError, LoadError};
use kernels::Isa;
use machine::acceptance::Reserve;
use machine::heap::Arena;
use machine::measurement::ModelRegister;
use machine::net::{AddressError, ListenConfig, Network, StaticAddress, Stream};
use machine::smp::Team;
use machine::virtio::blk::Role;
use machine::virtio::{DeviceKind, Devices, Failure as DeviceFailure};
use machine::{clock, entropy, println, smp};
use seal::Contents;
use server::config::{Address, Listen};
use server::{Config, ConfigError, Health, Inference, Platform, Server, WallClock};

use crate::contents::{ReadError, Reading};
use crate::evidence::{self, Evidence, MeasureError};
use crate::inference::{self, Workers};
use crate::model::{Model, ModelError, Turn};

/// How long the machine sleeps between two looks at its devices while nothing happens, if one of them raises no interrupts. Quotes raise none.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long it sleeps if all do: timers of connections are this late at most.
const PATIENCE: Duration = Duration::from_millis(25);
/// The largest configuration that is read.
const CONFIG_LIMIT: u64 = 64 << 10;

/// Why nothing is served.
enum Failure {
    Config(ConfigError),
    ConfigTooLong,
    Address(AddressError),
    Read(ReadError),
    Model(ModelError),
    Measure(MeasureError),
    NoModel,
    BrokenDisk(DeviceFailure),
    Load(LoadError),
    Engine(EngineError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::ConfigTooLong => write!(f, "configuration: longer than {CONFIG_LIMIT} bytes"),
            Self::Address(error) => write!(f, "configuration: `address`: {error}"),
            Self::Read(error) => error.fmt(f),
            Self::Model(error) => error.fmt(f),
            Self::Measure(error) => error.fmt(f),
            Self::NoModel => f.write_str(
                "there is no model: attach a GGUF file as a virtio-blk disk with the serial model:<bytes>",
            ),
            Self::BrokenDisk(error) => write!(f, "there is no usable model disk: {error}"),
            Self::Load(error) => write!(f, "model: {error}"),
            Self::Engine(error) => write!(f, "model: {error}; or give the machine more memory"),
        }
    }
}

/// How far the model has come.
enum Stage {
    /// It is on its way.
    Loading {
        model: Box<Model>,
        /// The percentage last printed.
        printed: u8,
        /// When it could begin: at once, or with its key.
        since: Duration,
    },
    /// It is there and being tried out.
    Warming,
    /// It is served, or never will be.
    Settled,
}

/// The time as TLS and the API want it.
#[derive(Debug)]
struct MachineClock;

impl WallClock for MachineClock {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(clock::unix_seconds().unwrap_or(0))
    }
}

/// Network, server and the model on its way.
pub struct Service {
    network: Network,
    server: Server<Stream, Engine<'static, Workers>>,
    stage: Stage,
    config: Config,
    isa: Isa,
    team: &'static Team,
    /// How long to sleep at most.
    patience: Duration,
    /// What the model takes: memory to come, and the right to be measured. Gone once it is served or never will be.
    reserve: Option<(Reserve, ModelRegister)>,
}

impl Service {
    /// Reads and measures the configuration, makes the identity and starts to listen. With a bad configuration it listens where the
    /// default one says, to tell so.
    ///
    /// # Errors
    /// One line: without randomness or an identity there is nobody to tell anything to.
    pub fn start(
        mut devices: Devices,
        evidence: Evidence,
        team: &'static Team,
        mut reserve: Reserve,
    ) -> Result<Self, String> {
        let (config, address, failure) = match configure(&mut devices) {
            Ok((config, address)) => (config, address, None),
            Err(failure) => (Config::default(), None, Some(failure)),
        };
        let clock = Arc::new(MachineClock);
        let isa = Isa::detect();
        let platform = Platform {
            isa: isa.to_string(),
            vcpus: team.count(),
        };
        let measured = evidence.configure(&config.canonical());
        let (domain, register) = measured.map_err(|error| error.to_string())?;
        let server =
            Server::new(&config, domain, platform, clock).map_err(|error| error.to_string())?;
        let mut seed = [0; 8];
        entropy::fill(&mut seed).map_err(|error| error.to_string())?;
        let listen = ListenConfig {
            tcp: Some(config.listen.tcp).filter(|&port| port != 0),
            vsock: Some(config.listen.vsock).filter(|&port| port != 0),
            address,
        };
        let model = devices.take_disk(Role::Model);
        if let Some(disk) = &model {
            reserve
                .take(team, inference::model_memory(disk.label().length))
                .map_err(|error| error.to_string())?;
        }
        let Devices {
            card,
            vsock,
            failures,
            polled,
            ..
        } = devices;
        let network = Network::new(&listen, card, vsock, u64::from_le_bytes(seed), clock::now());
        let mut service = Self {
            network,
            server,
            stage: Stage::Settled,
            config,
            isa,
            team,
            patience: if polled { POLL_INTERVAL } else { PATIENCE },
            reserve: Some((reserve, register)),
        };
        let model = match (failure, model) {
            (Some(failure), _) => Err(failure),
            (None, Some(disk)) => Ok(Model::start(disk)),
            (None, None) => Err(failures
                .into_iter()
                .find(|failure| failure.kind == DeviceKind::Block)
                .map_or(Failure::NoModel, Failure::BrokenDisk)),
        };
        match model {
            Ok(model) => {
                service.stage = Stage::Loading {
                    model: Box::new(model),
                    printed: 0,
                    since: clock::now(),
                };
            }
            Err(failure) => service.fail(&failure),
        }
        Ok(service)
    }

    /// Serves for ever.
    pub fn run(mut self) -> ! {
        loop {
            if !self.turn() {
                let patience = match self.server.awaits_quote() {
                    true => POLL_INTERVAL,
                    false => self.patience,
                };
                smp::idle(patience);
            }
        }
    }

    /// Gives everything its turn. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        let mut busy = self.network.poll(clock::now());
        while let Some((stream, _origin)) = self.network.accept() {
            // At capacity the stream is dropped, which closes it: the client sees that and may try again.
            let _ = self.server.attach(stream);
            busy = true;
        }
        while let Some((kind, error)) = self.network.take_failure() {
            println!("vitrine: {kind} shut down: {error}");
        }
        busy |= self.server.poll(clock::now);
        match self.stage {
            Stage::Loading { .. } => match self.load() {
                Ok(arrived) => busy |= arrived,
                Err(failure) => self.fail(&failure),
            },
            Stage::Warming => self.announce(),
            Stage::Settled => {}
        }
        busy
    }

    /// Takes in the next piece of the model; with the last one, serves it. Returns whether there was one.
    fn load(&mut self) -> Result<bool, Failure> {
        let Stage::Loading {
            model,
            printed,
            since,
        } = &mut self.stage
        else {
            return Ok(false);
        };
        let turn = match self.server.take_key() {
            Some((envelope, key)) => {
                println!("vitrine: opening the sealed model");
                *since = clock::now();
                model.open(envelope, &key, self.team)
            }
            None => model.advance(self.team),
        };
        match turn.map_err(Failure::Model)? {
            Turn::Idle => return Ok(false),
            Turn::Arriving(percent) => {
                self.server.set_health(Health::Loading { percent });
                if percent / 10 > *printed / 10 {
                    println!("vitrine: loading {percent} %");
                    *printed = percent;
                }
            }
            Turn::Sealed(envelope) => {
                println!("vitrine: the model is sealed and waits for its key");
                *printed = 0;
                self.server.seal(envelope);
            }
            Turn::Refused(error) => println!("vitrine: the model was not opened: {error}"),
            Turn::Complete(contents) => {
                println!(
                    "vitrine: loaded {} MiB in {} ms",
                    contents.memory.len() >> 20,
                    (clock::now() - *since).as_millis()
                );
                self.stage = Stage::Warming;
                self.open_model(contents)?;
            }
        }
        Ok(true)
    }

    /// Makes an engine of the model and begins to serve it.
    fn open_model(&mut self, contents: Contents<Arena>) -> Result<(), Failure> {
        let Contents {
            memory,
            sealed,
            plaintext,
        } = contents;
        let model = engine::Model::load(memory.leak()).map_err(Failure::Load)?;
        let Some((reserve, register)) = self.reserve.take() else {
            return Ok(());
        };
        let engine = inference::engine(model, self.isa, self.team, &self.config, reserve)
            .map_err(Failure::Engine)?;
        let name = self.config.model.name.as_deref();
        let name = name.unwrap_or_else(|| Inference::name(&engine));
        let identity = ModelIdentity {
            name: server::measured_name(name).into(),
            sealed,
            plaintext,
        };
        evidence::measure(register, &identity).map_err(Failure::Measure)?;
        self.server.install(engine, identity);
        Ok(())
    }

    /// Says when the service is ready.
    fn announce(&mut self) {
        let Health::Ready { boot_ms } = self.server.health() else {
            return;
        };
        self.stage = Stage::Settled;
        let Listen { tcp, vsock, .. } = self.config.listen;
        println!(
            "vitrine: ready tcp={tcp} vsock={vsock} isa={} vcpus={} boot_ms={boot_ms}",
            self.isa,
            self.team.count(),
        );
    }

    fn fail(&mut self, failure: &Failure) {
        println!("vitrine: failed: {failure}");
        self.stage = Stage::Settled;
        self.reserve = None;
        self.server.set_health(Health::Failed {
            reason: failure.to_string(),
        });
    }
}

/// Reads the configuration disk, if there is one.
fn configure(devices: &mut Devices) -> Result<(Config, Option<StaticAddress>), Failure> {
    let config = match devices.take_disk(Role::Config) {
        None => Config::default(),
        Some(disk) if disk.label().length > CONFIG_LIMIT => return Err(Failure::ConfigTooLong),
        Some(disk) => {
            let mut reading = Reading::start(disk).map_err(Failure::Read)?;
            while !reading.is_complete() {
                // The disk's own deadline ends this.
                reading.advance().map_err(Failure::Read)?;
            }
            Config::parse(&reading.into_memory()).map_err(Failure::Config)?
        }
    };
    let address = match config.listen.address {
        Address::Dhcp => None,
        Address::Static { address, prefix } => Some(
            StaticAddress::new(address, prefix, config.listen.gateway).map_err(Failure::Address)?,
        ),
    };
    Ok((config, address))
}
