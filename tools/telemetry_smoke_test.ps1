<#
.SYNOPSIS
    Sends one event the whole way and checks each step: calyx-telemetry smoke-test, with the arguments of the first generation.
.EXAMPLE
    tools\telemetry_smoke_test.ps1 -RepoRoot C:\Bench
#>
param([string]$RepoRoot)
$arguments = @("smoke-test")
if ($RepoRoot) { $arguments += @("--root", $RepoRoot) }
& calyx-telemetry @arguments @args
exit $LASTEXITCODE
