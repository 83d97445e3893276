<#
.SYNOPSIS
    Packs what is not exported yet into a bundle: calyx-telemetry export, with the arguments of the first generation.
.EXAMPLE
    tools\telemetry_export.ps1 -RepoRoot C:\Bench
#>
param([string]$RepoRoot)
$arguments = @("export")
if ($RepoRoot) { $arguments += @("--root", $RepoRoot) }
& calyx-telemetry @arguments @args
exit $LASTEXITCODE
