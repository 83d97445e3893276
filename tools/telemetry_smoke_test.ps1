<#
.SYNOPSIS
    Sends one event the whole way and checks each step: calyx-telemetry smoke-test, with the arguments of the first generation.
.EXAMPLE
    tools\telemetry_smoke_test.ps1 -RepoRoot C:\Bench
#>
[CmdletBinding()]
param(
    [string]$RepoRoot,
    [Parameter(ValueFromRemainingArguments = $true)][string[]]$Others = @()
)
$arguments = @("smoke-test")
if ($RepoRoot) { $arguments += @("--root", $RepoRoot) }
& calyx-telemetry @arguments @Others
exit $LASTEXITCODE
