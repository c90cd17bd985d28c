//! `cargo xtask`: builds the image, shows it working, tests it. `cargo xtask --help` lists the commands.

#![forbid(unsafe_code)]

mod adversary;
mod bench;
mod boot;
mod calendar;
mod cpu_time;
mod demo;
mod deny;
mod failure;
mod fuzz;
mod guest;
mod image_step;
mod instructions;
mod interrupt;
mod lint;
mod lockfiles;
mod models;
mod packages;
mod pins;
mod process;
mod python;
mod release;
mod reproduce;
mod sealed;
mod symbols;
mod tcb;
mod test;
mod tools;
mod verifier;
mod workspace;

use clap::{Parser, Subcommand};

use failure::Result;
use workspace::Workspace;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Build, test, demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build vitrine.fd and print its size and digest
    Image,
    Demo(demo::Arguments),
    Boot(boot::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
    Reproduce(reproduce::Arguments),
    Release(release::Arguments),
    /// Count what has to be trusted, and write measurements/published/tcb.json
    Tcb,
    /// List the image's sensitive instructions and why each is safe in a trust domain
    Instructions,
    /// List the files of the repository that the image depends on, as sha384sum does
    Sources,
    /// Build a program that verifies and nothing else; print its size and its packages
    Verifier,
    #[command(hide = true)]
    Adversary(adversary::Arguments),
    /// Format the sources of every workspace
    Fmt {
        /// Fail where they are not formatted instead
        #[arg(long)]
        check: bool,
    },
    /// Check the licences, sources and advisories of everything depended on
    Deny,
    /// Clippy in every workspace; a warning is a failure
    Lint,
    /// Check that the image is built from the packages that are tested
    Lockfiles {
        /// Move the image's packages to the tested versions
        #[arg(long)]
        fix: bool,
    },
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(failure) = run(&arguments.command) {
        eprintln!("error: {failure}");
        let code = if interrupt::interrupted() {
            interrupt::EXIT_CODE
        } else {
            1
        };
        std::process::exit(code);
    }
}

fn run(command: &Command) -> Result<()> {
    interrupt::watch()?;
    let workspace = Workspace::locate()?;
    match command {
        Command::Image => {
            println!("{}", image_step::build(&workspace)?);
            Ok(())
        }
        Command::Demo(arguments) => demo::run(&workspace, arguments),
        Command::Boot(arguments) => boot::run(&workspace, arguments),
        Command::Test(arguments) => test::run(&workspace, arguments),
        Command::Bench(arguments) => bench::run(&workspace, arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, arguments),
        Command::Reproduce(arguments) => reproduce::run(&workspace, arguments),
        Command::Instructions => instructions::print(&workspace, &image_step::build(&workspace)?),
        Command::Release(arguments) => release::run(&workspace, arguments),
        Command::Tcb => tcb::run(&workspace),
        Command::Sources => {
            let image = image_step::build(&workspace)?;
            print!(
                "{}",
                image_step::sources::list(&workspace, &image.assembly)?
            );
            Ok(())
        }
        Command::Verifier => verifier::run(&workspace),
        Command::Adversary(arguments) => adversary::run(arguments),
        Command::Fmt { check } => lint::format(&workspace, *check),
        Command::Deny => deny::run(&workspace),
        Command::Lint => {
            packages::provide(packages::BUILD)?;
            lint::lint(&workspace)
        }
        Command::Lockfiles { fix: false } => lockfiles::check(&workspace),
        Command::Lockfiles { fix: true } => lockfiles::fix(&workspace),
    }
}
